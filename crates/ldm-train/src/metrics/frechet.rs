use nalgebra::{DMatrix, DVector};

use super::{MetricError, Statistics};

/// The Fréchet distance of two Gaussians, `|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`: FID of pool features,
/// sFID of spatial ones.
///
/// With `S1 = L L^T` the product `S1 S2` has the eigenvalues of the symmetric `L^T S2 L`; the trace is the sum of
/// their square roots. Nothing is added to a singular covariance: pytorch-fid does so (1e-6 on both diagonals) only
/// where SciPy's square root fails. The distance of equal statistics may come out a rounding error below zero, as in
/// the references. Sources: Heusel et al. 2017; `calculate_frechet_distance` of pytorch-fid's fid_score.py,
/// `fid_statistics_to_metric` of torch-fidelity's metric_fid.py.
///
/// # Errors
/// Statistics of different widths; values so large that their product overflows.
pub fn frechet_distance(a: &Statistics, b: &Statistics) -> Result<f64, MetricError> {
    if a.mu.len() != b.mu.len() {
        let (left, right) = (vec![a.mu.len()], vec![b.mu.len()]);
        return Err(MetricError::Shapes { what: "statistics", left, right });
    }
    let root = root(&a.sigma);
    let product = root.tr_mul(&(&b.sigma * &root));
    if product.iter().any(|v| !v.is_finite()) {
        return Err(MetricError::NotFinite("the product of the covariances"));
    }
    let trace_of_root = match product.nrows() {
        0 => 0.0,
        _ => product.symmetric_eigenvalues().iter().map(|v| v.max(0.0).sqrt()).sum::<f64>(),
    };
    Ok((&a.mu - &b.mu).norm_squared() + a.sigma.trace() + b.sigma.trace() - 2.0 * trace_of_root)
}

/// `L` `[d, rank]` with `L L^T = S`, for a positive semidefinite `S`: Cholesky's factor, each column with the largest
/// diagonal that is left as its pivot, until nothing but rounding errors is left (Higham 2002, chapter 10.3).
fn root(s: &DMatrix<f64>) -> DMatrix<f64> {
    let d = s.nrows();
    let mut rest: Vec<f64> = s.diagonal().iter().copied().collect();
    let largest = rest.iter().fold(0f64, |m, v| m.max(*v));
    let negligible = d as f64 * f64::EPSILON * largest;
    let mut root = DMatrix::zeros(d, d);
    let mut rank = 0;
    while rank < d {
        let (pivot, value) =
            rest.iter().enumerate().fold((0, 0.0), |m, (i, v)| if *v > m.1 { (i, *v) } else { m });
        if value <= negligible {
            break;
        }
        let done = root.columns(0, rank);
        let mut column: DVector<f64> = s.column(pivot) - done * done.row(pivot).transpose();
        column /= value.sqrt();
        for (rest, v) in rest.iter_mut().zip(column.iter()) {
            *rest -= v * v;
        }
        rest[pivot] = 0.0;
        root.set_column(rank, &column);
        rank += 1;
    }
    root.resize_horizontally(rank, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_of_a_singular_matrix_has_its_rank() {
        let a = DMatrix::from_fn(6, 2, |i, j| ((i * 2 + j) as f64).sin());
        let s = &a * a.transpose();
        let root = root(&s);
        assert_eq!(root.ncols(), 2);
        assert!((&root * root.transpose() - s).amax() < 1e-15);
        assert_eq!(super::root(&DMatrix::zeros(3, 3)).ncols(), 0);
    }
}
