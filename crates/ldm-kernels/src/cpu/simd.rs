//! Which vector instructions this machine has.

use std::sync::OnceLock;

/// A set of vector instructions that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// 16 lanes and fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 8 lanes and fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What the target always has (NEON on aarch64, SSE2 on x86-64).
    Baseline,
}

impl Level {
    /// All levels that this machine can run, the best first.
    pub fn available() -> &'static [Level] {
        static AVAILABLE: OnceLock<Vec<Level>> = OnceLock::new();
        AVAILABLE.get_or_init(|| {
            let mut levels = Vec::new();
            #[cfg(target_arch = "x86_64")]
            {
                let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
                if avx2 && is_x86_feature_detected!("avx512f") {
                    levels.push(Level::Avx512);
                }
                if avx2 {
                    levels.push(Level::Avx2);
                }
            }
            levels.push(Level::Baseline);
            levels
        })
    }

    /// The best level of this machine.
    pub fn best() -> Level {
        Self::available()[0]
    }
}

/// Defines a function whose body is compiled once a [`Level`], for the compiler to vectorise, and runs the best.
///
/// With a type parameter `S: Shuffle` the body may use [`Shuffle`](crate::cpu::winograd::shuffle::Shuffle) as well,
/// which each version has of its own.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        multiversion! { @versions [$(#[$meta])*] [$vis] $name [] [] [] [$($arg: $ty),*] [$($ret)?] $body }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident<S: Shuffle $(, $life:lifetime)?>($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        multiversion! {
            @versions [$(#[$meta])*] [$vis] $name [$($life)?]
            [$crate::cpu::winograd::shuffle::Avx512] [$crate::cpu::winograd::shuffle::Portable]
            [$($arg: $ty),*] [] $body
        }
    };
    (
        @versions [$(#[$meta:meta])*] [$vis:vis] $name:ident [$($life:lifetime)?] [$($wide:ty)?] [$($portable:ty)?]
        [$($arg:ident: $ty:ty),*] [$($ret:ty)?] $body:block
    ) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$life>)? ($($arg: $ty),*) $(-> $ret)? {
            multiversion! { @body [$($portable)?] [$($life)?] [$($arg: $ty),*] [$($ret)?] $body }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn avx512 $(<$life>)? ($($arg: $ty),*) $(-> $ret)? { body $(::<$wide>)? ($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$life>)? ($($arg: $ty),*) $(-> $ret)? { body $(::<$portable>)? ($($arg),*) }

            match $crate::cpu::simd::Level::best() {
                // SAFETY: a level is available only where the machine has its features.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::simd::Level::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::simd::Level::Avx2 => unsafe { avx2($($arg),*) },
                $crate::cpu::simd::Level::Baseline => body $(::<$portable>)? ($($arg),*),
            }
        }
    };
    (@body [] [] [$($arg:ident: $ty:ty),*] [$($ret:ty)?] $body:block) => {
        #[inline(always)]
        fn body($($arg: $ty),*) $(-> $ret)? $body
    };
    (@body [$portable:ty] [$($life:lifetime)?] [$($arg:ident: $ty:ty),*] [] $body:block) => {
        #[inline(always)]
        fn body<$($life,)? S: Shuffle>($($arg: $ty),*) $body
    };
}
