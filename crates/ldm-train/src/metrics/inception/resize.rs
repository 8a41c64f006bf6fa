use burn::tensor::{DType, Device, Tensor, TensorData};

/// Bilinear resizing of `[b, c, h, w]` to `size`, as `torch.nn.functional.interpolate` does it with
/// `align_corners=False` and without antialiasing.
///
/// It is linear along each axis, so it is two products with sparse matrices: the same on every backend.
pub fn resize_bilinear(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    if [h, w] == size {
        return x;
    }
    let device = x.device();
    let (rows, columns) = (taps(h, size[0], &device), taps(w, size[1], &device));
    let wide = x.reshape([b * c, h, w]).matmul(columns.transpose().unsqueeze::<3>());
    rows.unsqueeze::<3>().matmul(wide).reshape([b, c, size[0], size[1]])
}

/// `[to, from]`: what each of the `from` pixels gives to each of the `to` pixels.
fn taps(from: usize, to: usize, device: &Device) -> Tensor<2> {
    let mut matrix = vec![0f32; to * from];
    for (i, row) in matrix.chunks_mut(from).enumerate() {
        let at = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        let weight = at - low as f64;
        row[low] += (1.0 - weight) as f32;
        row[(low + 1).min(from - 1)] += weight as f32;
    }
    Tensor::from_data(TensorData::new(matrix, [to, from]), (device, DType::F32))
}
