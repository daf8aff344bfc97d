//! A sentence-embedding model from a folder, run by rten on the CPU.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rten::{Model, NodeId, NodeInfo, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;

use super::word_pieces::WordPieces;
use super::{Embed, EmbedError, normalized};

/// The most tokens of a text that the model is shown: the lead says it. Of 600 AG News items 48, 64, 96 and 128 tokens got
/// .840, .833, .833 and .832 right (`tiers cuts`), so more of a text takes time and brings nothing.
const MAX_TOKENS: usize = 64;
/// The most bytes of a text that are tokenized, for each token.
const BYTES_PER_TOKEN: usize = 16;
/// The letters of the hash by which one model file is told from another.
const HASH_LETTERS: usize = 16;
/// The positions that models of this family were trained with.
const MOST_TOKENS: usize = 512;

/// A sentence-embedding model of the BERT family from a folder with `model.onnx` and `tokenizer.json`, such as
/// all-MiniLM-L6-v2. The vectors of tokens are averaged where the model does not pool by itself.
///
/// A text is cut after 64 tokens ([`max_tokens`](Self::max_tokens)). Each is run by itself, one on each core: in batches on the
/// same cores none was faster, and this way nothing is padded. The model has a thread of its own that hands out the work, so that
/// what comes from several runs does not compete; it ends when the last clone is dropped.
///
/// The project's `examples/embedded/fetch-model.sh` gets a small one (23 MB, Apache-2.0).
#[derive(Clone)]
pub struct SentenceModel {
    name: Arc<str>,
    /// Of the model file and the tokenizer.
    hash: Arc<str>,
    max_tokens: usize,
    work: SyncSender<Work>,
}

/// Texts, the most tokens of each, and where their vectors go.
type Work = (Vec<String>, usize, Sender<Vectors>);
type Vectors = Result<Vec<Vec<f32>>, EmbedError>;

impl fmt::Debug for SentenceModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SentenceModel").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SentenceModel {
    /// Loads a model folder; its name is the model's name. Takes under a second for a small model.
    ///
    /// # Errors
    /// A file is missing, or is no sentence-embedding model or tokenizer that can be used.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, EmbedError> {
        let folder = folder.as_ref();
        let folder_name = folder.canonicalize().ok().and_then(|folder| folder.file_name().map(ToOwned::to_owned));
        let name = folder_name.map_or_else(|| "embedded".to_owned(), |name| name.to_string_lossy().into_owned());
        let (work, works) = sync_channel(1);
        let model = Loaded::open(folder)?;
        let hash = model.hash.as_str().into();
        std::thread::Builder::new()
            .name("embedded".into())
            .spawn(move || model.serve(&works))
            .map_err(|error| EmbedError::failed(format!("no thread for it: {error}")))?;
        Ok(Self { name: name.into(), hash, max_tokens: MAX_TOKENS, work })
    }

    /// The most tokens of a text that are read, 8 to 512; other numbers are taken for the nearest of these. Default: 64. A
    /// learned head is for the number that it was learned with.
    #[must_use]
    pub fn max_tokens(self, tokens: usize) -> Self {
        Self { max_tokens: tokens.clamp(8, MOST_TOKENS), ..self }
    }
}

impl Embed for SentenceModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> String {
        format!("{} {} at {} tokens", self.name, self.hash, self.max_tokens)
    }

    fn embed(&self, texts: &[&str]) -> Vectors {
        let (reply, vectors) = channel();
        let most_bytes = BYTES_PER_TOKEN * self.max_tokens;
        let texts = texts.iter().map(|text| text[..text.floor_char_boundary(most_bytes)].to_owned()).collect();
        self.work.send((texts, self.max_tokens, reply)).map_err(|_| stopped())?;
        vectors.recv().unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> EmbedError {
    EmbedError::failed("its thread broke down")
}

/// A model on its thread.
struct Loaded {
    model: Model,
    hash: String,
    pieces: WordPieces,
    inputs: Vec<(NodeId, Input)>,
    output: NodeId,
    /// A pool of one thread for each core.
    cores: Vec<Arc<ThreadPool>>,
}

/// What an input of the model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    TokenIds,
    Mask,
    TokenTypes,
}

impl Loaded {
    fn open(folder: &Path) -> Result<Self, EmbedError> {
        let (path, tokenizer_path) = (folder.join("model.onnx"), folder.join("tokenizer.json"));
        let unusable = |path: &PathBuf, reason: &dyn fmt::Display| EmbedError::Unusable {
            path: path.clone(),
            reason: reason.to_string(),
        };
        let read = |path: &PathBuf| {
            let unreadable = |reason: std::io::Error| EmbedError::Unreadable {
                path: path.clone(),
                reason: reason.to_string().to_lowercase(),
            };
            std::fs::read(path).map_err(unreadable)
        };
        let tokenizer = String::from_utf8(read(&tokenizer_path)?).map_err(|error| unusable(&tokenizer_path, &error))?;
        let pieces = WordPieces::from_json(&tokenizer).map_err(|error| unusable(&tokenizer_path, &error))?;
        let bytes = read(&path)?;
        let hash = blake3::Hasher::new().update(tokenizer.as_bytes()).update(&bytes).finalize().to_hex();
        let hash = hash[..HASH_LETTERS].to_owned();
        let model = Model::load(bytes).map_err(|error| unusable(&path, &error))?;
        let inputs = inputs_of(&model).map_err(|reason| unusable(&path, &reason))?;
        let output = output_of(&model).ok_or_else(|| unusable(&path, &"it has no output"))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = (0..cores).map(|_| Arc::new(ThreadPool::with_num_threads(1))).collect();
        Ok(Self { model, hash, pieces, inputs, output, cores })
    }

    fn serve(&self, works: &Receiver<Work>) {
        while let Ok((texts, max_tokens, reply)) = works.recv() {
            // A text that the engine breaks down at must not take the model from all others.
            let embedded = catch_unwind(AssertUnwindSafe(|| self.embed(&texts, max_tokens)));
            // Nobody may be left to take it.
            let _ = reply.send(embedded.unwrap_or_else(|_| Err(EmbedError::failed("it broke down at a text"))));
        }
    }

    fn embed(&self, texts: &[String], max_tokens: usize) -> Vectors {
        let tokens_of = |text: &String| self.pieces.of(text, max_tokens);
        let tokens = texts.iter().map(tokens_of).collect::<Option<Vec<_>>>();
        let tokens = tokens.ok_or_else(|| EmbedError::failed("a text cannot be tokenized"))?;
        let Self { model, inputs, output, cores, .. } = self;
        if tokens.len() < cores.len() {
            // Too few for all cores: each text is spread over them.
            return tokens.iter().map(|tokens| run(model, inputs, *output, tokens, None)).collect();
        }
        let next = AtomicUsize::new(0);
        let vectors = Mutex::new(vec![Ok(Vec::new()); tokens.len()]);
        std::thread::scope(|scope| {
            for core in cores {
                let (next, vectors, tokens) = (&next, &vectors, &tokens);
                scope.spawn(move || {
                    while let at = next.fetch_add(1, Ordering::Relaxed)
                        && let Some(tokens) = tokens.get(at)
                    {
                        let vector = run(model, inputs, *output, tokens, Some(core));
                        vectors.lock().unwrap_or_else(PoisonError::into_inner)[at] = vector;
                    }
                });
            }
        });
        vectors.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
    }
}

fn inputs_of(model: &Model) -> Result<Vec<(NodeId, Input)>, String> {
    let input = |&node: &NodeId| {
        let info = model.node_info(node);
        let input = match info.as_ref().and_then(NodeInfo::name).unwrap_or_default() {
            "input_ids" => Input::TokenIds,
            "attention_mask" => Input::Mask,
            "token_type_ids" => Input::TokenTypes,
            name => return Err(format!("its input {name:?} is none of input_ids, attention_mask, token_type_ids")),
        };
        Ok((node, input))
    };
    let inputs = model.input_ids().iter().map(input).collect::<Result<Vec<_>, _>>()?;
    let has_tokens = inputs.iter().any(|(_, input)| *input == Input::TokenIds);
    if has_tokens { Ok(inputs) } else { Err("it has no input input_ids".to_owned()) }
}

/// The output with the pooled vector where there is one, else the first, which has the vectors of the tokens.
fn output_of(model: &Model) -> Option<NodeId> {
    let is_pooled =
        |node: &&NodeId| model.node_info(**node).is_some_and(|info| info.name() == Some("sentence_embedding"));
    model.output_ids().iter().find(is_pooled).or(model.output_ids().first()).copied()
}

/// The vector of a text.
fn run(
    model: &Model,
    inputs: &[(NodeId, Input)],
    output: NodeId,
    tokens: &[i32],
    core: Option<&Arc<ThreadPool>>,
) -> Result<Vec<f32>, EmbedError> {
    let input = |(node, input): &(NodeId, Input)| {
        let values = match input {
            Input::TokenIds => tokens.to_vec(),
            Input::Mask => vec![1; tokens.len()],
            Input::TokenTypes => vec![0; tokens.len()],
        };
        (*node, ValueOrView::from(NdTensor::from_data([1, tokens.len()], values)))
    };
    let options = RunOptions::default().with_thread_pool(core.cloned());
    let [value] = model
        .run_n(inputs.iter().map(input).collect(), [output], Some(options))
        .map_err(|error| EmbedError::failed(error.to_string()))?;
    pooled(value)
}

/// The direction of an output for one text, or of the mean over its tokens.
fn pooled(output: Value) -> Result<Vec<f32>, EmbedError> {
    let shape = output.shape().to_vec();
    let unexpected = || EmbedError::failed(format!("its output has the shape {shape:?} for one text"));
    match *shape {
        [1, _] => {
            let vector: NdTensor<f32, 2> = output.try_into().map_err(|_| unexpected())?;
            Ok(normalized(vector.iter().copied().collect()))
        }
        [1, _, width] if width > 0 => {
            let rows: NdTensor<f32, 3> = output.try_into().map_err(|_| unexpected())?;
            let mut sum = vec![0.0; width];
            rows.iter().zip((0..width).cycle()).for_each(|(value, at)| sum[at] += value);
            Ok(normalized(sum))
        }
        _ => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_no_model_is_named() {
        let error = SentenceModel::open("/nowhere/at/all").unwrap_err();
        assert!(matches!(error, EmbedError::Unreadable { .. }));
        assert!(error.to_string().contains("/nowhere/at/all/tokenizer.json"), "{error}");

        let folder = std::env::temp_dir().join(format!("slugline-no-model-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("tokenizer.json"), "{}").unwrap();
        let error = SentenceModel::open(&folder).unwrap_err();
        assert!(matches!(&error, EmbedError::Unusable { path, .. } if path.ends_with("tokenizer.json")), "{error}");
        std::fs::write(folder.join("tokenizer.json"), super::super::word_pieces::tests::JSON).unwrap();
        std::fs::write(folder.join("model.onnx"), "no model").unwrap();
        let error = SentenceModel::open(&folder).unwrap_err();
        assert!(matches!(&error, EmbedError::Unusable { path, .. } if path.ends_with("model.onnx")), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_vectors_of_tokens_are_averaged_where_the_model_does_not_pool() {
        let tokens = NdTensor::from_data([1, 2, 2], vec![3.0, 0.0, 1.0, 8.0]);
        assert_eq!(pooled(Value::from(tokens)).unwrap(), normalized(vec![4.0, 8.0]));
        let by_model = NdTensor::from_data([1, 2], vec![3.0, 4.0]);
        assert_eq!(pooled(Value::from(by_model)).unwrap(), [0.6, 0.8]);
        assert!(pooled(Value::from(NdTensor::from_data([2], vec![1.0, 2.0]))).is_err());
    }
}
