//! Qwen2 from a GGUF file, with a key-value cache that is a value: it is cloned for nothing and never written over, so
//! any number of continuations share a prefix.

use std::io::{Read, Seek};
use std::sync::Arc;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{Device, Module, Result, Tensor, bail};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope;

/// The weights.
pub(crate) struct Model {
    embedding: Arc<QTensor>,
    layers: Vec<Layer>,
    norm: Norm,
    output: QMatMul,
    rope_base: f32,
    most_tokens: usize,
}

/// What the model remembers of the tokens it has read: keys and values by layer.
#[derive(Clone, Default)]
pub(crate) struct Cache {
    layers: Vec<(Tensor, Tensor)>,
    tokens: usize,
}

impl Cache {
    /// The tokens that were read.
    #[cfg(test)]
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }
}

impl Model {
    /// Reads the weights, quantized as they are.
    ///
    /// # Errors
    ///
    /// When the file is of another architecture or lacks something.
    pub(crate) fn read(file: &mut (impl Read + Seek), content: &Content) -> Result<Self> {
        let mut weights = Weights { file, content };
        let architecture = weights.value("general.architecture")?.to_string()?;
        if architecture != "qwen2" {
            bail!("the file holds a model of the architecture {architecture}, not qwen2");
        }
        let heads = weights.number("attention.head_count")?;
        let shape = Shape { heads, groups: weights.number("attention.head_count_kv")? };
        let epsilon = weights.value("qwen2.attention.layer_norm_rms_epsilon")?.to_f32()?;
        let embedding = Arc::new(weights.tensor("token_embd.weight")?);
        let output = if content.tensor_infos.contains_key("output.weight") {
            QMatMul::from_qtensor(weights.tensor("output.weight")?)?
        } else {
            QMatMul::from_arc(Arc::clone(&embedding))?
        };
        let layers = (0..weights.number("block_count")?).map(|at| Layer::read(&mut weights, at, shape, epsilon));
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            norm: weights.norm("output_norm.weight", epsilon)?,
            embedding,
            output,
            rope_base: weights.value("qwen2.rope.freq_base")?.to_f32()?,
            most_tokens: weights.number("context_length")?,
        })
    }

    /// The most tokens that it was trained to read.
    pub(crate) fn most_tokens(&self) -> usize {
        self.most_tokens
    }

    /// Reads more tokens after those of the cache: the cache with them, and the logits of the token that follows.
    pub(crate) fn read_on(&self, cache: &Cache, tokens: &[u32]) -> Result<(Cache, Tensor)> {
        let (start, end) = (cache.tokens, cache.tokens + tokens.len());
        if tokens.is_empty() || end > self.most_tokens {
            bail!("cannot read {} tokens after {start}: the model takes {}", tokens.len(), self.most_tokens);
        }
        let ids = Tensor::new(tokens, &Device::Cpu)?;
        let mut hidden = self.embedding.embedding(&ids)?;
        let positions = Positions::new(start, end, self.layers[0].head_width(hidden.dim(1)?), self.rope_base)?;
        let mut read = Cache { layers: Vec::with_capacity(self.layers.len()), tokens: end };
        for (at, layer) in self.layers.iter().enumerate() {
            let (next, kept) = layer.forward(&hidden, &positions, cache.layers.get(at))?;
            hidden = next;
            read.layers.push(kept);
        }
        let last = hidden.narrow(0, tokens.len() - 1, 1)?;
        let logits = self.output.forward(&self.norm.forward(&last.contiguous()?)?)?;
        Ok((read, logits.squeeze(0)?))
    }
}

#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    /// Heads of a group share their keys and values.
    groups: usize,
}

struct Layer {
    attention_norm: Norm,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: QMatMul,
    feed_forward_norm: Norm,
    gate: QMatMul,
    up: QMatMul,
    down: QMatMul,
    shape: Shape,
}

impl Layer {
    fn read<R: Read + Seek>(weights: &mut Weights<'_, R>, at: usize, shape: Shape, epsilon: f32) -> Result<Self> {
        let name = |part: &str| format!("blk.{at}.{part}");
        Ok(Self {
            attention_norm: weights.norm(&name("attn_norm.weight"), epsilon)?,
            query: weights.linear(&name("attn_q"))?,
            key: weights.linear(&name("attn_k"))?,
            value: weights.linear(&name("attn_v"))?,
            attention_output: weights.matrix(&name("attn_output.weight"))?,
            feed_forward_norm: weights.norm(&name("ffn_norm.weight"), epsilon)?,
            gate: weights.matrix(&name("ffn_gate.weight"))?,
            up: weights.matrix(&name("ffn_up.weight"))?,
            down: weights.matrix(&name("ffn_down.weight"))?,
            shape,
        })
    }

    fn head_width(&self, width: usize) -> usize {
        width / self.shape.heads
    }

    fn forward(
        &self,
        hidden: &Tensor,
        positions: &Positions,
        before: Option<&(Tensor, Tensor)>,
    ) -> Result<(Tensor, (Tensor, Tensor))> {
        let (attention, kept) = self.attend(&self.attention_norm.forward(hidden)?, positions, before)?;
        let hidden = (hidden + attention)?;
        let normed = self.feed_forward_norm.forward(&hidden)?;
        let gated = (silu(&self.gate.forward(&normed)?)? * self.up.forward(&normed)?)?;
        Ok(((hidden + self.down.forward(&gated)?)?, kept))
    }

    fn attend(
        &self,
        input: &Tensor,
        positions: &Positions,
        before: Option<&(Tensor, Tensor)>,
    ) -> Result<(Tensor, (Tensor, Tensor))> {
        let (tokens, width) = input.dims2()?;
        let Shape { heads, groups } = self.shape;
        let head = self.head_width(width);
        let by_head =
            |projected: Tensor, heads| projected.reshape((1, tokens, heads, head))?.transpose(1, 2)?.contiguous();
        let query = positions.rotate(&by_head(self.query.forward(input)?, heads)?)?;
        let mut key = positions.rotate(&by_head(self.key.forward(input)?, groups)?)?;
        let mut value = by_head(self.value.forward(input)?, groups)?;
        if let Some((keys, values)) = before {
            key = Tensor::cat(&[keys, &key], 2)?;
            value = Tensor::cat(&[values, &value], 2)?;
        }
        // The heads of a group are stacked, so that none of its keys and values are copied.
        let query = query.reshape((1, groups, heads / groups * tokens, head))?;
        let scores = (query.matmul(&key.t()?)? / (head as f64).sqrt())?;
        let scores = scores.reshape((groups, heads / groups, tokens, ()))?.broadcast_add(&positions.mask)?;
        let shares = softmax_last_dim(&scores)?.reshape((1, groups, heads / groups * tokens, ()))?;
        let mixed = shares.matmul(&value)?.reshape((heads, tokens, head))?.transpose(0, 1)?.reshape((tokens, width))?;
        Ok((self.attention_output.forward(&mixed)?, (key, value)))
    }
}

/// Where the new tokens are, and which tokens each of them sees.
struct Positions {
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
}

impl Positions {
    fn new(start: usize, end: usize, head: usize, base: f32) -> Result<Self> {
        let frequencies = (0..head).step_by(2).map(|at| base.powf(-(at as f32) / head as f32)).collect();
        let frequencies = Tensor::from_vec(frequencies, (1, head / 2), &Device::Cpu)?;
        let places = Tensor::arange(start as f32, end as f32, &Device::Cpu)?.reshape((end - start, 1))?;
        let angles = places.matmul(&frequencies)?;
        let hides = |row: usize, column: usize| if column > row { f32::NEG_INFINITY } else { 0.0 };
        let mask = (start..end).flat_map(|row| (0..end).map(move |column| hides(row, column))).collect();
        let mask = Tensor::from_vec(mask, (end - start, end), &Device::Cpu)?;
        Ok(Self { cos: angles.cos()?, sin: angles.sin()?, mask })
    }

    fn rotate(&self, heads: &Tensor) -> Result<Tensor> {
        rope(heads, &self.cos, &self.sin)
    }
}

struct Norm {
    weight: Tensor,
    epsilon: f32,
}

impl Norm {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        rms_norm(input, &self.weight, self.epsilon)
    }
}

struct Linear {
    matrix: QMatMul,
    bias: Tensor,
}

impl Linear {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.matrix.forward(input)?.broadcast_add(&self.bias)
    }
}

/// Reads single weights and settings of a file.
struct Weights<'a, R> {
    file: &'a mut R,
    content: &'a Content,
}

impl<'a, R: Read + Seek> Weights<'a, R> {
    fn value(&self, key: &str) -> Result<&'a Value> {
        let Some(value) = self.content.metadata.get(key) else { bail!("the file does not say {key}") };
        Ok(value)
    }

    /// A setting that counts something, of which a model has at least one.
    fn number(&self, key: &str) -> Result<usize> {
        match self.value(&format!("qwen2.{key}"))?.to_u32()? {
            0 => bail!("{key} is 0"),
            number => Ok(number as usize),
        }
    }

    fn tensor(&mut self, name: &str) -> Result<QTensor> {
        self.content.tensor(self.file, name, &Device::Cpu)
    }

    fn matrix(&mut self, name: &str) -> Result<QMatMul> {
        QMatMul::from_qtensor(self.tensor(name)?)
    }

    fn vector(&mut self, name: &str) -> Result<Tensor> {
        self.tensor(name)?.dequantize(&Device::Cpu)
    }

    fn linear(&mut self, name: &str) -> Result<Linear> {
        Ok(Linear { matrix: self.matrix(&format!("{name}.weight"))?, bias: self.vector(&format!("{name}.bias"))? })
    }

    fn norm(&mut self, name: &str, epsilon: f32) -> Result<Norm> {
        Ok(Norm { weight: self.vector(name)?, epsilon })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny;

    fn close(a: &Tensor, b: &Tensor) -> bool {
        let (a, b) = (a.to_vec1::<f32>().unwrap(), b.to_vec1::<f32>().unwrap());
        let spread = a.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        spread > 0.1 && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-3)
    }

    #[test]
    fn a_shared_prefix_gives_what_a_full_pass_gives() {
        let (model, _) = tiny::model();
        let tokens: Vec<u32> = (0..40).map(|at| at * 37 % 251).collect();
        let (full, expected) = model.read_on(&Cache::default(), &tokens).unwrap();
        assert_eq!(full.tokens(), 40);
        let (prefix, other) = model.read_on(&Cache::default(), &tokens[..25]).unwrap();
        assert!(!close(&other, &expected));
        // The same prefix twice: reading on does not change it.
        for _ in 0..2 {
            let (all, logits) = model.read_on(&prefix, &tokens[25..]).unwrap();
            assert!(close(&logits, &expected));
            assert_eq!((prefix.tokens(), all.tokens()), (25, 40));
        }
        let mut cache = prefix;
        let mut last = other;
        for token in &tokens[25..] {
            (cache, last) = model.read_on(&cache, &[*token]).unwrap();
        }
        assert!(close(&last, &expected));
    }

    #[test]
    fn the_order_of_tokens_matters() {
        let (model, _) = tiny::model();
        let logits = |tokens: &[u32]| model.read_on(&Cache::default(), tokens).unwrap().1;
        assert!(!close(&logits(&[1, 2, 3, 9]), &logits(&[3, 2, 1, 9])));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (model, _) = tiny::model();
        assert!(model.read_on(&Cache::default(), &[]).is_err());
        assert!(model.read_on(&Cache::default(), &vec![1; model.most_tokens() + 1]).is_err());
        assert!(model.read_on(&Cache::default(), &[u32::MAX]).is_err());
    }
}
