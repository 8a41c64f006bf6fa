use burn::tensor::{DType, Int, Tensor};

/// Scores computed at a time: 64 MiB in f32.
const MAX_SCORES: usize = 1 << 24;

/// The index of the code nearest to each row: `rows` `[n, d]`, `codebook` `[k, d]` -> `[n]`.
///
/// `|x - e|^2` orders the codes as `|e|^2 - 2 x e` does, which is one matrix product of `[x, 1]` and
/// `[-2 e, |e|^2]`, made in blocks of rows. In f32 and outside autodiff, whatever the tensors are.
pub(super) fn nearest(rows: Tensor<2>, codebook: Tensor<2>) -> Tensor<1, Int> {
    nearest_in_blocks(rows, codebook, MAX_SCORES)
}

fn nearest_in_blocks(rows: Tensor<2>, codebook: Tensor<2>, max_scores: usize) -> Tensor<1, Int> {
    let plain = |x: Tensor<2>| x.inner().cast(DType::F32);
    let (rows, codebook) = (plain(rows), plain(codebook));
    let ([n, _], [k, _]) = (rows.dims(), codebook.dims());
    let squares = codebook.clone().square().sum_dim(1);
    let codes = Tensor::cat(vec![codebook * -2.0, squares], 1).transpose();
    let ones = Tensor::ones([n, 1], (&rows.device(), DType::F32));
    let rows = Tensor::cat(vec![rows, ones], 1);
    let step = (max_scores / k).max(1);
    let blocks = (0..n).step_by(step).map(|start| {
        let length = step.min(n - start);
        rows.clone().narrow(0, start, length).matmul(codes.clone()).argmin(1).reshape([length])
    });
    Tensor::cat(blocks.collect(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use ldm_test_support::seeded_input;

    #[test]
    fn blocks_find_what_a_search_finds() {
        let device = Device::default();
        let (rows, codes) = (seeded_input("rows", [97, 5], &device), seeded_input("codes", [61, 5], &device));
        let values = |x: &Tensor<2>| x.to_data().iter::<f64>().collect::<Vec<_>>();
        let (x, e) = (values(&rows), values(&codes));
        let distance =
            |i: usize, j: usize| -> f64 { (0..5).map(|c| (x[i * 5 + c] - e[j * 5 + c]).powi(2)).sum() };
        let searched: Vec<i64> = (0..97)
            .map(|i| (0..61).min_by(|a, b| distance(i, *a).total_cmp(&distance(i, *b))).unwrap_or(0) as i64)
            .collect();
        for max_scores in [1, 61 * 10, 61 * 97, usize::MAX] {
            let found = nearest_in_blocks(rows.clone(), codes.clone(), max_scores);
            let found: Vec<i64> = found.into_data().iter::<i64>().collect();
            assert_eq!(found, searched, "at most {max_scores} scores");
        }
    }
}
