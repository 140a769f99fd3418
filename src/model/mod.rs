//! A model: a file's weights, its tokenizer, and the one forward pass over them.

mod arch;
mod batch;
mod chat;
pub mod embedding;
pub mod forward;
mod phases;
mod scratch;
pub mod spec;
pub mod weights;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crate::budget::Budget;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::gguf::{Gguf, LoadOptions, Source};
use crate::kernel::{self, Kernels};
use crate::kv::{Domain, KvFormat, Layout, PAGE_SIZES, PAGE_TOKENS, Prefixes};
use crate::pressure::{Level, Watch};
use crate::team::{FloatEnvironment, Team, TeamOptions};
use crate::tokenizer::Tokenizer;

pub use arch::names as architectures;
pub use batch::Row;
pub use chat::{CHAT_TEXT, ChatTemplate};
pub use scratch::{Scratch, Size};
pub use spec::Spec;
pub use weights::Weights;

/// How a model is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// How the file's bytes are brought in, and the budget that they and the model's scratch are
    /// charged to.
    pub load: LoadOptions,
    /// Read only metadata, tensor directory and tokenizer, for any architecture: the model can be
    /// described and can tokenize, and sessions on it are refused.
    pub describe_only: bool,
    /// The most bytes of pages that are kept for sessions whose tokens begin like those of others
    /// before; `None`: a quarter of the weights', at least [`PREFIX_BYTES`]. 0: none are.
    pub prefix_bytes_max: Option<u64>,
    /// Tokens of a page of keys and values, one of [`PAGE_SIZES`]; 0: [`PAGE_TOKENS`]. Small pages
    /// waste less at the end of many short texts, large ones are attended over faster. Does not
    /// change any result.
    pub page_tokens: usize,
    /// What tells how short memory is; `None`: [`Watch::machine`].
    pub watch: Option<Arc<Watch>>,
}

/// Bytes of pages that any model keeps by default.
pub const PREFIX_BYTES: u64 = 256 << 20;

/// An open model: immutable, shared by any number of sessions on any threads.
pub struct Model {
    gguf: Gguf,
    /// `Err` says why there is none.
    tokenizer: Result<Tokenizer>,
    network: Option<Network>,
    budget: Budget,
    prefixes: Prefixes,
    watch: Arc<Watch>,
    team: Mutex<Weak<Team>>,
    identity: OnceLock<u128>,
}

/// What a forward pass needs of a model.
#[derive(Debug)]
pub struct Network {
    /// The degrees of freedom.
    pub spec: Spec,
    /// The weights.
    pub weights: Weights,
    /// The kernels that this CPU runs them with.
    pub kernels: &'static Kernels,
    /// Scratch of passes that are not running.
    pub scratch: scratch::Pool,
    /// Tokens of a page of keys and values.
    pub page_tokens: usize,
}

/// Bytes that a session on a model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryEstimate {
    /// Weights used in place in the mapped file, shared by all processes that map it.
    pub weights_mapped: u64,
    /// Weights read into memory.
    pub weights_copied: u64,
    /// Pages for a full context, and states of recurrent layers.
    pub kv: u64,
    /// Activations of a pass, shared by sessions that do not run at once.
    pub scratch: u64,
    /// The session's copy of its logits.
    pub logits: u64,
}

impl Model {
    /// Opens the model in `source`. One whose tokenizer this build does not know opens too: it runs
    /// on tokens, and [`Model::tokenizer`] says what is not known.
    ///
    /// # Errors
    /// `IO` and `FORMAT` for what is wrong with the file, `UNSUPPORTED` for what this build cannot
    /// run, `INVALID_ARGUMENT` for a size of pages that is none, `MEMORY_CAP` and `OUT_OF_MEMORY`,
    /// `CANCELLED` by `control`.
    pub fn open(
        source: Source<'_>,
        options: &OpenOptions,
        control: &mut Control<'_>,
    ) -> Result<Arc<Self>> {
        Self::open_with(source, options, control, kernel::detect())
    }

    /// As [`Model::open`], with the kernels of a given ISA.
    pub fn open_with(
        source: Source<'_>,
        options: &OpenOptions,
        control: &mut Control<'_>,
        kernels: &'static Kernels,
    ) -> Result<Arc<Self>> {
        Self::open_changed(source, options, control, kernels, &mut |_| {})
    }

    /// As [`Model::open_with`], with a network that `change` alters before anyone runs it: to find out
    /// what a part of a model is worth.
    pub fn open_changed(
        source: Source<'_>,
        options: &OpenOptions,
        control: &mut Control<'_>,
        kernels: &'static Kernels,
        change: &mut dyn FnMut(&mut Network),
    ) -> Result<Arc<Self>> {
        let _environment = FloatEnvironment::enter();
        let gguf = Gguf::open(source, &options.load, control)?;
        let tokenizer = tokenizer(&gguf)?;
        let mut network = match options.describe_only {
            true => None,
            false => Some(Network::load(
                &gguf,
                tokenizer.as_ref().ok(),
                kernels,
                options,
            )?),
        };
        if let Some(network) = &mut network {
            change(network);
        }
        let budget = options.load.budget.clone();
        let prefix_bytes = options
            .prefix_bytes_max
            .unwrap_or_else(|| PREFIX_BYTES.max(weight_bytes(&gguf) / 4));
        Ok(Arc::new(Self {
            gguf,
            tokenizer,
            network,
            budget,
            prefixes: Prefixes::new(prefix_bytes),
            watch: options.watch.clone().unwrap_or_else(Watch::machine),
            team: Mutex::new(Weak::new()),
            identity: OnceLock::new(),
        }))
    }

    /// The file: metadata and tensors.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// A number by which saved sessions know the model again: [`Gguf::identity`], computed once.
    pub fn identity(&self) -> u128 {
        *self.identity.get_or_init(|| self.gguf.identity())
    }

    /// The architecture as the file names it; empty if it does not.
    pub fn architecture(&self) -> &str {
        arch::name(self.gguf.metadata()).unwrap_or("")
    }

    /// The name that the file gives the model; empty if it gives none.
    pub fn name(&self) -> &str {
        self.gguf
            .metadata()
            .str("general.name")
            .ok()
            .flatten()
            .unwrap_or("")
    }

    /// The tokenizer; `UNSUPPORTED` if the file has none, or one that this build does not know.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().map_err(Error::clone)
    }

    /// What a pass runs on; `UNSUPPORTED` if the model was opened to be described only.
    pub fn network(&self) -> Result<&Network> {
        self.network.as_ref().ok_or_else(|| {
            Error::new(
                Code::Unsupported,
                "model",
                "it was opened to be described only",
            )
        })
    }

    /// The account that the model's memory is charged to.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The team of the model's sessions that bring none of their own: default options, begun with
    /// the first of them and joined with the last.
    pub fn team(&self) -> Result<Arc<Team>> {
        let mut team = self.team.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(team) = team.upgrade() {
            return Ok(team);
        }
        let new = Team::new(TeamOptions::default())?;
        *team = Arc::downgrade(&new);
        Ok(new)
    }

    /// Weights in the file.
    pub fn parameters(&self) -> u64 {
        self.gguf
            .tensors()
            .iter()
            .map(|tensor| tensor.dims.iter().product::<u64>())
            .sum()
    }

    /// Bytes of all tensors.
    pub fn weight_bytes(&self) -> u64 {
        weight_bytes(&self.gguf)
    }

    /// What sessions and queues have evaluated, for others whose tokens begin the same way.
    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// With whom a sequence of `context` tokens shares what is evaluated; `None`: nobody, as the
    /// model keeps nothing, or its pages depend on the tokens behind them.
    pub fn domain(&self, format: KvFormat, context: usize, salt: u64) -> Option<Domain> {
        let network = self.network.as_ref()?;
        let can_share = network.spec.is_causal() && !self.prefixes.is_off();
        can_share.then(|| Domain {
            format,
            is_long: network.is_long(context),
            salt,
        })
    }

    /// How short memory is. The prefix cache shrinks and grows with it; who does long work asks, as
    /// often as it likes.
    pub fn pressure(&self) -> Level {
        let level = self.watch.level();
        self.prefixes.allow(level.share(self.prefixes.bytes_max()));
        level
    }

    /// What tells how short memory is.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// What a session needs with `context` tokens of `kv` (0: as many as the model can attend over)
    /// and passes of at most `rows` tokens. Exact for what is counted (KV, scratch, logits, copied
    /// weights); an upper bound of the KV of a model all of whose layers have windows.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where such a session is refused.
    pub fn memory_estimate(
        &self,
        context: usize,
        kv: KvFormat,
        rows: usize,
    ) -> Result<MemoryEstimate> {
        let spec = &self.network()?.spec;
        let context = match context {
            0 => spec.context,
            context => context,
        };
        if context > spec.context {
            let message = format!("expected at most {}, found {context}", spec.context);
            return Err(Error::new(Code::InvalidArgument, "context", message));
        }
        let size = Size {
            rows: if spec.is_causal() {
                rows.min(context)
            } else {
                context
            },
            outputs: 1,
            context,
        };
        let layout = self.network()?.layout(kv);
        let kept = spec.kept_tokens(context, size.rows);
        let pages = kept.div_ceil(layout.page_tokens()) as u64;
        let pages = pages.saturating_mul(layout.page_charge());
        let copied = self.budget.tag_bytes(crate::budget::Tag::Weights);
        Ok(MemoryEstimate {
            weights_mapped: self.weight_bytes().saturating_sub(copied),
            weights_copied: copied,
            kv: pages.saturating_add(layout.state().charge()),
            scratch: Scratch::bytes(spec, size),
            logits: Budget::charge_of_shared::<f32>(spec.logits()),
        })
    }
}

/// Bytes of all tensors.
fn weight_bytes(gguf: &Gguf) -> u64 {
    let tensors = gguf.tensors().iter();
    tensors.map(|tensor| tensor.bytes.len() as u64).sum()
}

/// The tokenizer of the file, or why there is none; that its keys are damaged is an error.
fn tokenizer(gguf: &Gguf) -> Result<Result<Tokenizer>> {
    match Tokenizer::load(gguf.metadata()) {
        Ok(Some(tokenizer)) => Ok(Ok(tokenizer)),
        Ok(None) => {
            let message = "the model file has no tokenizer";
            Ok(Err(Error::new(Code::Unsupported, "tokenizer", message)))
        }
        Err(error) if error.code() == Code::Unsupported => Ok(Err(error)),
        Err(error) => Err(error),
    }
}

/// The size of pages that is asked for.
fn page_tokens(given: usize) -> Result<usize> {
    match given {
        0 => Ok(PAGE_TOKENS),
        given if PAGE_SIZES.contains(&given) => Ok(given),
        given => {
            let message = format!("expected one of {PAGE_SIZES:?}, found {given}");
            Err(Error::new(Code::InvalidArgument, "page_tokens", message))
        }
    }
}

impl Network {
    /// Where everything lies in pages of a format.
    pub fn layout(&self, format: KvFormat) -> Layout {
        Layout::new(format, self.page_tokens, self.spec.layer_shapes())
    }

    /// Whether keys are turned as long contexts want it, in a session of `context` tokens.
    pub fn is_long(&self, context: usize) -> bool {
        let mut frequencies = self.weights.frequencies.iter();
        frequencies.any(|frequencies| frequencies.is_long(context))
    }

    fn load(
        gguf: &Gguf,
        tokenizer: Option<&Tokenizer>,
        kernels: &'static Kernels,
        options: &OpenOptions,
    ) -> Result<Self> {
        let page_tokens = page_tokens(options.page_tokens)?;
        let spec = arch::spec(gguf, || weights::vocab(gguf))?;
        if let Some(tokenizer) = tokenizer {
            let found = tokenizer.vocab_len();
            let place = || gguf.metadata().place("tokenizer.ggml.tokens");
            let expected = format!("{} tokens, the rows of the embedding", spec.vocab);
            spec::require(found == spec.vocab, place, expected, found)?;
        }
        let weights = Weights::load(gguf, &spec, &options.load.budget)?;
        Ok(Self {
            spec,
            weights,
            kernels,
            scratch: scratch::Pool::default(),
            page_tokens,
        })
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
