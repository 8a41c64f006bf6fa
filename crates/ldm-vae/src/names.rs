//! The names that weight files give a first stage's parameters.

use ldm_nn::weights::{Entry, KeyMap, Layout};

/// Whose names a weight file uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `encoder.down_blocks.0.resnets.0.norm1.weight`. Attention is `to_q`, or `query` in files older than
    /// diffusers 0.18; saving writes the former.
    Diffusers,
    /// `encoder.down.0.block.0.norm1.weight`; a whole model's file adds `first_stage_model.`.
    CompVis,
}

/// The names of a first stage's parameters in one naming: a [`KeyMap`] for loading and saving.
#[derive(Debug, Clone, Copy)]
pub struct WeightNames {
    naming: Naming,
    levels: usize,
}

/// A block's place below `encoder` or `decoder`: ours, diffusers', CompVis'. `#` is a number, kept;
/// `~` is the level counted from the other end, since CompVis' decoder numbers its levels by size.
const PLACES: &[[&str; 3]] = &[
    ["conv_in", "conv_in", "conv_in"],
    ["down.#.resnets.#", "down_blocks.#.resnets.#", "down.#.block.#"],
    ["down.#.attentions.#", "down_blocks.#.attentions.#", "down.#.attn.#"],
    ["down.#.downsample", "down_blocks.#.downsamplers.0", "down.#.downsample"],
    ["mid.resnet_1", "mid_block.resnets.0", "mid.block_1"],
    ["mid.attention", "mid_block.attentions.0", "mid.attn_1"],
    ["mid.resnet_2", "mid_block.resnets.1", "mid.block_2"],
    ["up.#.resnets.#", "up_blocks.#.resnets.#", "up.~.block.#"],
    ["up.#.attentions.#", "up_blocks.#.attentions.#", "up.~.attn.#"],
    ["up.#.upsample", "up_blocks.#.upsamplers.0", "up.~.upsample"],
    ["norm_out", "conv_norm_out", "norm_out"],
    ["conv_out", "conv_out", "conv_out"],
];

/// A layer's name inside its block: ours, diffusers', diffusers' of old, CompVis'. Others are the same
/// everywhere (`norm1`, `conv1`, `conv`, ...).
const LAYERS: &[[&str; 4]] = &[
    ["conv_shortcut", "conv_shortcut", "conv_shortcut", "nin_shortcut"],
    ["norm", "group_norm", "group_norm", "norm"],
    ["q", "to_q", "query", "q"],
    ["k", "to_k", "key", "k"],
    ["v", "to_v", "value", "v"],
    ["out", "to_out.0", "proj_attn", "proj_out"],
];

/// CompVis keeps the attention's projections as 1x1 convolutions.
const PROJECTIONS: [&str; 4] = ["q", "k", "v", "out"];

impl Naming {
    /// Whose names these are; `None` where they name no first stage. A prefix doesn't matter.
    pub fn detect<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        names.into_iter().find_map(|name| {
            let signs =
                [("coder.mid.block_1.", Self::CompVis), ("coder.mid_block.resnets.0.", Self::Diffusers)];
            signs.into_iter().find(|(sign, _)| name.contains(sign)).map(|(_, naming)| naming)
        })
    }
}

impl WeightNames {
    /// Names for a first stage of `levels` levels (`ch_mult`'s length).
    pub fn new(naming: Naming, levels: usize) -> Self {
        Self { naming, levels }
    }

    /// The name of a place that has matched, with the numbers found there.
    fn place(&self, place: &[&str; 3], numbers: &[usize]) -> Option<String> {
        let theirs = match self.naming {
            Naming::Diffusers => place[1],
            Naming::CompVis => place[2],
        };
        let mut numbers = numbers.iter();
        let parts = theirs.split('.').map(|part| match part {
            "#" => numbers.next().map(usize::to_string),
            "~" => self.levels.checked_sub(numbers.next()? + 1).map(|n| n.to_string()),
            part => Some(part.to_string()),
        });
        Some(parts.collect::<Option<Vec<_>>>()?.join("."))
    }

    /// The names of a layer inside its block, the one to write first.
    fn layer<'a>(&self, layer: &'a str) -> Vec<&'a str> {
        let Some([_, diffusers, old, compvis]) = LAYERS.iter().find(|row| row[0] == layer) else {
            return vec![layer];
        };
        match self.naming {
            Naming::Diffusers if diffusers != old => vec![diffusers, old],
            Naming::Diffusers => vec![diffusers],
            Naming::CompVis => vec![compvis],
        }
    }

    /// The shapes of a parameter in files, the one to write first.
    fn layouts(&self, layer: &str, parameter: &str) -> &'static [Layout] {
        // diffusers' own converter takes the linear form in CompVis' files as well.
        match self.naming {
            Naming::CompVis if PROJECTIONS.contains(&layer) && parameter == "weight" => {
                &[Layout::Conv2d1x1, Layout::Same]
            }
            _ => &[Layout::Same],
        }
    }
}

impl KeyMap for WeightNames {
    fn entry(&self, path: &str) -> Option<Entry> {
        self.entries(path).into_iter().next()
    }

    fn entries(&self, path: &str) -> Vec<Entry> {
        let Some((network @ ("encoder" | "decoder"), rest)) = path.split_once('.') else {
            // `quant_conv` and `post_quant_conv` are called so by all.
            return vec![Entry::same(path)];
        };
        let found = PLACES.iter().find_map(|place| matches(place[0], rest).map(|found| (place, found)));
        let Some((place, (numbers, rest))) = found else { return Vec::new() };
        let Some(place) = self.place(place, &numbers) else { return Vec::new() };
        // What is left is `weight`, or a layer and `weight`.
        let Some((layer, parameter)) = rest.split_once('.') else {
            return vec![Entry::same(format!("{network}.{place}.{rest}"))];
        };
        let keys =
            self.layer(layer).into_iter().map(|layer| format!("{network}.{place}.{layer}.{parameter}"));
        let layouts = self.layouts(layer, parameter);
        keys.flat_map(|key| layouts.iter().map(move |layout| Entry::new(key.clone(), *layout))).collect()
    }
}

/// Where `path` begins with `pattern`: the numbers at its `#`s, and what follows.
fn matches<'a>(pattern: &str, path: &'a str) -> Option<(Vec<usize>, &'a str)> {
    let mut numbers = Vec::new();
    let mut rest = path;
    for part in pattern.split('.') {
        let (head, tail) = rest.split_once('.')?;
        match part {
            "#" => numbers.push(head.parse().ok()?),
            part if part == head => {}
            _ => return None,
        }
        rest = tail;
    }
    Some((numbers, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_naming_spells_a_path_its_own_way() {
        let cases = [
            ["encoder.conv_in.weight", "encoder.conv_in.weight", "encoder.conv_in.weight"],
            [
                "encoder.down.1.resnets.0.conv_shortcut.weight",
                "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
                "encoder.down.1.block.0.nin_shortcut.weight",
            ],
            [
                "encoder.down.2.downsample.conv.bias",
                "encoder.down_blocks.2.downsamplers.0.conv.bias",
                "encoder.down.2.downsample.conv.bias",
            ],
            [
                "decoder.up.0.attentions.2.out.bias",
                "decoder.up_blocks.0.attentions.2.to_out.0.bias",
                "decoder.up.3.attn.2.proj_out.bias",
            ],
            [
                "decoder.up.1.upsample.conv.weight",
                "decoder.up_blocks.1.upsamplers.0.conv.weight",
                "decoder.up.2.upsample.conv.weight",
            ],
            ["decoder.norm_out.bias", "decoder.conv_norm_out.bias", "decoder.norm_out.bias"],
            ["post_quant_conv.weight", "post_quant_conv.weight", "post_quant_conv.weight"],
        ];
        for [path, diffusers, compvis] in cases {
            for (naming, expected) in [(Naming::Diffusers, diffusers), (Naming::CompVis, compvis)] {
                assert_eq!(WeightNames::new(naming, 4).entry(path), Some(Entry::same(expected)));
            }
        }
    }

    #[test]
    fn attention_is_linear_or_convolution() {
        let entries = |naming| WeightNames::new(naming, 4).entries("decoder.mid.attention.q.weight");
        let name = "decoder.mid.attn_1.q.weight";
        assert_eq!(entries(Naming::CompVis), [Entry::new(name, Layout::Conv2d1x1), Entry::same(name)]);
        let names = ["to_q", "query"].map(|q| format!("decoder.mid_block.attentions.0.{q}.weight"));
        assert_eq!(entries(Naming::Diffusers), names.map(Entry::same));
    }

    #[test]
    fn an_unknown_path_has_no_name() {
        for path in [
            "encoder.nothing.weight",
            "encoder.down.x.resnets.0.conv1.weight",
            "decoder.up.9.resnets.0.conv1.weight",
        ] {
            assert_eq!(WeightNames::new(Naming::CompVis, 4).entry(path), None, "{path}");
        }
    }

    #[test]
    fn naming_is_recognised() {
        let cases = [
            ("first_stage_model.encoder.mid.block_1.norm1.weight", Some(Naming::CompVis)),
            ("decoder.mid_block.resnets.0.conv1.weight", Some(Naming::Diffusers)),
            ("model.diffusion_model.out.0.weight", None),
        ];
        for (name, naming) in cases {
            assert_eq!(Naming::detect([name]), naming, "{name}");
        }
    }
}
