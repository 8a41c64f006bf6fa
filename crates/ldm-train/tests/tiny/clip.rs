//! CLIP's two encoders at their smallest.

use ldm_conditioning::clip::{ClipTextConfig, ClipVisionConfig};

/// Over OpenAI's vocabulary.
pub fn text() -> ClipTextConfig {
    ClipTextConfig {
        hidden_size: 8,
        intermediate_size: 16,
        projection_dim: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        ..ClipTextConfig::default()
    }
}

/// Of pictures 16 pixels wide.
pub fn vision() -> ClipVisionConfig {
    ClipVisionConfig {
        hidden_size: 8,
        intermediate_size: 16,
        projection_dim: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        image_size: 16,
        patch_size: 8,
        ..ClipVisionConfig::default()
    }
}
