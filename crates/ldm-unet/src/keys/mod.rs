//! The names that weight files give to a U-Net's parameters.
//!
//! Both maps go forward from a parameter's path in [`UNet`](crate::UNet), with tables for the parts of a
//! block. Prefixes (`model.diffusion_model.` of a whole checkpoint) are the loader's business.

mod compvis;
mod diffusers;

pub use compvis::CompVisKeys;
pub use diffusers::DiffusersKeys;

/// `path` with the first matching head of `table` replaced; a head ends at a dot of the path.
fn renamed(path: &str, table: &[(&str, &str)]) -> Option<String> {
    table.iter().find_map(|(ours, theirs)| {
        let rest = path.strip_prefix(ours)?;
        rest.starts_with('.').then(|| format!("{theirs}{rest}"))
    })
}

/// `"3.rest"` as `(3, "rest")`.
fn indexed(path: &str) -> Option<(usize, &str)> {
    let (index, rest) = path.split_once('.')?;
    Some((index.parse().ok()?, rest))
}

/// Inside a transformer block both formats use the same names.
const TRANSFORMER_BLOCK: [(&str, &str); 11] = [
    ("norm1", "norm1"),
    ("attn1.to_q", "attn1.to_q"),
    ("attn1.to_k", "attn1.to_k"),
    ("attn1.to_v", "attn1.to_v"),
    ("attn1.to_out", "attn1.to_out.0"),
    ("norm2", "norm2"),
    ("attn2.to_q", "attn2.to_q"),
    ("attn2.to_k", "attn2.to_k"),
    ("attn2.to_v", "attn2.to_v"),
    ("attn2.to_out", "attn2.to_out.0"),
    ("norm3", "norm3"),
];

const FEED_FORWARD: [(&str, &str); 2] = [("ff.proj_in", "ff.net.0.proj"), ("ff.proj_out", "ff.net.2")];

/// A spatial transformer's parameter, and the layout it has where the projections are convolutions.
fn transformer(path: &str, linear: bool) -> Option<(String, ldm_nn::weights::Layout)> {
    use ldm_nn::weights::Layout;
    if let Some((block, rest)) = path.strip_prefix("transformer_blocks.").and_then(indexed) {
        let name = renamed(rest, &TRANSFORMER_BLOCK).or_else(|| renamed(rest, &FEED_FORWARD))?;
        return Some((format!("transformer_blocks.{block}.{name}"), Layout::Same));
    }
    let projection = matches!(path, "proj_in.weight" | "proj_out.weight");
    let layout = if projection && !linear { Layout::Conv2d1x1 } else { Layout::Same };
    renamed(path, &[("norm", "norm"), ("proj_in", "proj_in"), ("proj_out", "proj_out")])
        .map(|name| (name, layout))
}
