//! The shape of a model, as far as its KV cache depends on it.

use serde::Deserialize;

use super::error::{PlanError, within};

/// The width of a number in the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvDtype {
    /// fp8 (`--kv-cache-dtype fp8`): 1 byte.
    Bits8,
    /// float16 or bfloat16, the usual: 2 bytes.
    Bits16,
    /// float32, as on a CPU: 4 bytes.
    Bits32,
}

impl KvDtype {
    /// Its bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bits8 => 1,
            Self::Bits16 => 2,
            Self::Bits32 => 4,
        }
    }

    /// The type by the names that vLLM and model configurations have for it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.trim_start_matches("torch.") {
            "fp8" | "fp8_e4m3" | "fp8_e5m2" | "int8" => Some(Self::Bits8),
            "float16" | "bfloat16" | "half" | "f16" | "bf16" => Some(Self::Bits16),
            "float32" | "float" | "f32" => Some(Self::Bits32),
            _ => None,
        }
    }
}

/// The shape of a model whose layers all keep a key and a value for each token: the transformers with full attention and
/// grouped queries, such as Llama, Qwen2.5 and Mistral. For sliding windows, latent attention (`DeepSeek`) and hybrids with
/// state-space layers the formula gives too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    layers: u32,
    kv_heads: u32,
    head_size: u32,
    dtype: KvDtype,
}

impl ModelShape {
    /// A shape of so many layers, each with so many heads of keys and values of a size.
    ///
    /// # Errors
    /// A figure is 0 or larger than any model has.
    pub fn new(layers: u32, kv_heads: u32, head_size: u32, dtype: KvDtype) -> Result<Self, PlanError> {
        within("layers", f64::from(layers), [1.0, 1_000.0], "1 to 1,000")?;
        within("KV heads", f64::from(kv_heads), [1.0, 1_024.0], "1 to 1,024")?;
        within("head size", f64::from(head_size), [1.0, 4_096.0], "1 to 4,096")?;
        Ok(Self { layers, kv_heads, head_size, dtype })
    }

    /// Reads the shape from a model's `config.json`, as Hugging Face has it. `dtype` is that of the cache; none takes the
    /// model's own, or 16 bits where it does not say.
    ///
    /// ```
    /// use slugline::plan::ModelShape;
    ///
    /// let config = r#"{"num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "hidden_size": 896,
    ///     "torch_dtype": "bfloat16"}"#;
    /// assert_eq!(ModelShape::from_config_json(config, None)?.bytes_per_token(), 12_288);
    /// # Ok::<(), slugline::plan::PlanError>(())
    /// ```
    ///
    /// # Errors
    /// The text is no such configuration, or says nothing of the heads.
    pub fn from_config_json(json: &str, dtype: Option<KvDtype>) -> Result<Self, PlanError> {
        #[derive(Deserialize)]
        struct Config {
            num_hidden_layers: u32,
            num_attention_heads: u32,
            num_key_value_heads: Option<u32>,
            head_dim: Option<u32>,
            hidden_size: Option<u32>,
            #[serde(alias = "dtype")]
            torch_dtype: Option<String>,
        }
        let config: Config = serde_json::from_str(json)
            .map_err(|_| PlanError::Config { field: "num_hidden_layers, num_attention_heads" })?;
        let by_division = || config.hidden_size?.checked_div(config.num_attention_heads);
        let head_size = config.head_dim.or_else(by_division).ok_or(PlanError::Config { field: "head_dim" })?;
        let own = config.torch_dtype.as_deref().and_then(KvDtype::from_name);
        let kv_heads = config.num_key_value_heads.unwrap_or(config.num_attention_heads);
        Self::new(config.num_hidden_layers, kv_heads, head_size, dtype.or(own).unwrap_or(KvDtype::Bits16))
    }

    /// The bytes that a token takes in the KV cache: 2 (a key and a value) × layers × KV heads × head size × bytes of a
    /// number. Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with `PagedAttention`"
    /// (SOSP 2023), section 3; with the KV heads of Ainslie et al., "GQA" (EMNLP 2023).
    pub fn bytes_per_token(&self) -> u64 {
        2 * u64::from(self.layers) * u64::from(self.kv_heads) * u64::from(self.head_size) * self.dtype.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_models_take_what_is_published_of_them() {
        let bytes =
            |layers, heads, size| ModelShape::new(layers, heads, size, KvDtype::Bits16).unwrap().bytes_per_token();
        // The PagedAttention paper reckons 800 KB for a token of OPT-13B: 2 × 5120 × 40 × 2.
        assert_eq!(bytes(40, 40, 128), 819_200);
        // Llama 3 8B and Qwen2.5 7B, by their config.json.
        assert_eq!([bytes(32, 8, 128), bytes(28, 4, 128)], [131_072, 57_344]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(ModelShape::new(0, 2, 64, KvDtype::Bits16).is_err());
        let error = ModelShape::new(24, 2, 100_000, KvDtype::Bits16).unwrap_err();
        assert_eq!(error.to_string(), "head size must be 1 to 4,096, not 100000");
        for json in ["", "{}", "[]", r#"{"num_hidden_layers": 1, "num_attention_heads": 0, "hidden_size": 8}"#] {
            assert!(ModelShape::from_config_json(json, None).is_err(), "{json}");
        }
        let own_size = r#"{"num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 256, "dtype": "float32"}"#;
        assert_eq!(ModelShape::from_config_json(own_size, None).unwrap().bytes_per_token(), 2 * 2 * 4 * 256 * 4);
        assert_eq!(
            ModelShape::from_config_json(own_size, Some(KvDtype::Bits8)).unwrap().bytes_per_token(),
            2 * 2 * 4 * 256
        );
    }
}
