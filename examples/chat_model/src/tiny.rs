//! A model of random weights with a tokenizer of single bytes, written as a GGUF file in memory and read like any other.

use std::io::Cursor;

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use crate::chat::Chat;
use crate::engine::Engine;
use crate::model::Model;

pub(crate) const MOST_TOKENS: usize = 16_384;
const WIDTH: usize = 64;
const FEED_FORWARD: usize = 96;
const LAYERS: usize = 2;

pub(crate) fn engine() -> Engine {
    let (model, chat) = model();
    Engine::new(model, chat)
}

pub(crate) fn model() -> (Model, Chat) {
    let mut file = Cursor::new(file());
    let content = Content::read(&mut file).unwrap();
    (Model::read(&mut file, &content).unwrap(), Chat::read(&content).unwrap())
}

/// The bytes of the file.
pub(crate) fn file() -> Vec<u8> {
    let mut tokens: Vec<String> = byte_letters().into_iter().map(String::from).collect();
    tokens.extend(["sp", "<|im_start|>", "<|im_end|>"].map(String::from));
    let kinds = (0..tokens.len()).map(|at| Value::I32(if at > 256 { 3 } else { 1 })).collect();
    let mut random = 7_u64;
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), weight(&mut random, &[tokens.len(), WIDTH], 1.0)),
        ("output_norm.weight".to_owned(), weight(&mut random, &[WIDTH], 1.0)),
    ];
    for layer in 0..LAYERS {
        let shapes: [(&str, &[usize]); 12] = [
            ("attn_norm.weight", &[WIDTH]),
            ("attn_q.weight", &[WIDTH, WIDTH]),
            ("attn_q.bias", &[WIDTH]),
            ("attn_k.weight", &[WIDTH / 2, WIDTH]),
            ("attn_k.bias", &[WIDTH / 2]),
            ("attn_v.weight", &[WIDTH / 2, WIDTH]),
            ("attn_v.bias", &[WIDTH / 2]),
            ("attn_output.weight", &[WIDTH, WIDTH]),
            ("ffn_norm.weight", &[WIDTH]),
            ("ffn_gate.weight", &[FEED_FORWARD, WIDTH]),
            ("ffn_up.weight", &[FEED_FORWARD, WIDTH]),
            ("ffn_down.weight", &[WIDTH, FEED_FORWARD]),
        ];
        for (name, shape) in shapes {
            tensors.push((format!("blk.{layer}.{name}"), weight(&mut random, shape, 0.4)));
        }
    }
    let text = |text: &str| Value::String(text.to_owned());
    let metadata = [
        ("general.architecture", text("qwen2")),
        ("qwen2.block_count", Value::U32(LAYERS as u32)),
        ("qwen2.context_length", Value::U32(MOST_TOKENS as u32)),
        ("qwen2.attention.head_count", Value::U32(4)),
        ("qwen2.attention.head_count_kv", Value::U32(2)),
        ("qwen2.attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
        ("qwen2.rope.freq_base", Value::F32(10_000.0)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("qwen2")),
        ("tokenizer.ggml.tokens", Value::Array(tokens.into_iter().map(Value::String).collect())),
        ("tokenizer.ggml.token_type", Value::Array(kinds)),
        ("tokenizer.ggml.merges", Value::Array(vec![text("s p")])),
    ];
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    file.into_inner()
}

fn weight(random: &mut u64, shape: &[usize], spread: f32) -> QTensor {
    let mut next = || {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*random >> 40) as f32 / (1_u64 << 23) as f32 - 1.0) * spread
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    QTensor::quantize(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap(), GgmlDType::F32).unwrap()
}

/// The letters that stand for the bytes 0 to 255 in a byte-level tokenizer: printable ones for themselves, the others
/// for letters from U+0100 on.
fn byte_letters() -> Vec<char> {
    let mut others = '\u{100}'..;
    (0..=255_u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => others.next().unwrap(),
        })
        .collect()
}
