//! One vector register, for the few loops that the compiler doesn't vectorise well by itself.

/// A register of f32 lanes.
pub trait Lanes: Copy {
    /// Lanes in a register.
    const N: usize;

    /// All lanes zero.
    ///
    /// # Safety
    /// The machine must have the instructions of this type, here and below.
    unsafe fn zero() -> Self;

    /// `N` values from `p`, which needn't be aligned.
    ///
    /// # Safety
    /// `p` must be valid for reading `N` values.
    unsafe fn load(p: *const f32) -> Self;

    /// The value at `p` in every lane.
    ///
    /// # Safety
    /// `p` must be valid for reading one value.
    unsafe fn splat(p: *const f32) -> Self;

    /// `self + a * b`.
    ///
    /// # Safety
    /// See [`zero`](Self::zero).
    unsafe fn add_product(self, a: Self, b: Self) -> Self;

    /// Writes the `N` values to `p`.
    ///
    /// # Safety
    /// `p` must be valid for writing `N` values.
    unsafe fn store(self, p: *mut f32);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    macro_rules! lanes {
        ($type:ty, $n:literal, $zero:ident, $load:ident, $splat:ident, $fma:ident, $store:ident) => {
            // SAFETY (every block): the caller vouches for the instructions and the pointers.
            impl Lanes for $type {
                const N: usize = $n;
                #[inline(always)]
                unsafe fn zero() -> Self {
                    unsafe { $zero() }
                }
                #[inline(always)]
                unsafe fn load(p: *const f32) -> Self {
                    unsafe { $load(p) }
                }
                #[inline(always)]
                unsafe fn splat(p: *const f32) -> Self {
                    unsafe { $splat(*p) }
                }
                #[inline(always)]
                unsafe fn add_product(self, a: Self, b: Self) -> Self {
                    unsafe { $fma(a, b, self) }
                }
                #[inline(always)]
                unsafe fn store(self, p: *mut f32) {
                    unsafe { $store(p, self) }
                }
            }
        };
    }

    lanes!(__m512, 16, _mm512_setzero_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps);
    lanes!(__m256, 8, _mm256_setzero_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps);
}

/// Four lanes in plain Rust: NEON or SSE2 through the compiler.
#[derive(Clone, Copy)]
pub struct Plain([f32; 4]);

// SAFETY (every block): the caller vouches for the pointers.
impl Lanes for Plain {
    const N: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        Self([unsafe { *p }; 4])
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // aarch64 has fused multiply-add always; elsewhere `mul_add` would be a call.
        let term = |i: usize| {
            if cfg!(target_arch = "aarch64") {
                a.0[i].mul_add(b.0[i], self.0[i])
            } else {
                a.0[i] * b.0[i] + self.0[i]
            }
        };
        Self([term(0), term(1), term(2), term(3)])
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
}
