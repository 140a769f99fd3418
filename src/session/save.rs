//! Sessions as bytes: saved to a file or buffer, and restored from it, on this CPU or another.
//!
//! Little-endian: [`MAGIC`], the version of this format and that of the numerics (u32 each), the
//! identity of the model (u128), the length of the head (u64), the head (postcard), the pages of the
//! evaluated tokens and the states of recurrent layers if they were wanted, and the SipHash 1-3 of all
//! that (u128). The last logits are not there: the last token is evaluated again, to the same bits.

use std::borrow::Cow;
use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::NUMERICS_VERSION;
use crate::error::{Code, Error, Result};
use crate::kv::{Extent, KvFormat, SLOTS, refused};
use crate::model::{Model, Network};
use crate::session::generation::{Generation, SavedGeneration};
use crate::session::{Learnt, Session, SessionOptions};
use crate::team::Team;

/// How saved sessions begin.
pub const MAGIC: [u8; 16] = *b"LightGPT session";

/// Version of the format.
const VERSION: u32 = 2;

/// Bytes in front of the head and behind the states: magic, versions, identity, length, checksum.
const FRAME_BYTES: usize = 16 + 4 + 4 + 16 + 8 + 16;

/// All of a session but its pages.
#[derive(Debug, Serialize, Deserialize)]
struct Head<'a> {
    kv: KvFormat,
    context: usize,
    tokens: Cow<'a, [u32]>,
    prompt_end: usize,
    turn_start: Option<usize>,
    learnt: Cow<'a, [Learnt]>,
    generation: Option<SavedGeneration>,
    /// Tokens whose pages follow, those included that are forgotten.
    evaluated: usize,
    /// Tokens at the start whose pages no query to come sees.
    forgotten: usize,
    /// Tokens of a page.
    page_tokens: usize,
    /// Tokens after which there are states of recurrent layers, rising.
    states: Vec<usize>,
    /// The one of them that the turn began with.
    state_kept: usize,
}

impl Session {
    /// Writes the session to `out`: with `pages` what it has evaluated too, pages and states, which
    /// restores at the speed of reading; else only the tokens, which are evaluated again then, to the
    /// same bits. A prompt that is partly evaluated is saved as that. The session stays as it is.
    ///
    /// # Errors
    /// `UNSUPPORTED` if a generation is in progress whose sampler has a stage of the user's own;
    /// `IO` as `out` says.
    pub fn save(&self, pages: bool, out: &mut dyn Write) -> Result<()> {
        let (head, head_bytes) = self.head(pages)?;
        let mut out = Hashed::new(out);
        let write = |out: &mut Hashed<&mut dyn Write>| -> io::Result<()> {
            out.write_all(&MAGIC)?;
            out.write_all(&VERSION.to_le_bytes())?;
            out.write_all(&NUMERICS_VERSION.to_le_bytes())?;
            out.write_all(&self.model.identity().to_le_bytes())?;
            out.write_all(&(head_bytes.len() as u64).to_le_bytes())?;
            out.write_all(&head_bytes)?;
            self.caches[0].write_to(head.evaluated, &head.states, out)?;
            let checksum = out.checksum();
            out.write_all(&checksum.to_le_bytes())?;
            out.flush()
        };
        write(&mut out).map_err(|error| refused(&error))
    }

    /// Bytes that [`Session::save`] writes.
    ///
    /// # Errors
    /// As [`Session::save`].
    pub fn saved_bytes(&self, pages: bool) -> Result<usize> {
        let (head, head_bytes) = self.head(pages)?;
        let cache_bytes = self.caches[0].written_bytes(head.evaluated, &head.states);
        Ok(FRAME_BYTES + head_bytes.len() + cache_bytes)
    }

    /// The head of the session as it is, and its bytes.
    fn head(&self, pages: bool) -> Result<(Head<'_>, Vec<u8>)> {
        self.check_sound()?;
        let (cache, generation) = (&self.caches[0], self.generation.as_ref());
        let evaluated = if pages { self.evaluated } else { 0 };
        let head = Head {
            kv: cache.layout().format(),
            context: self.context,
            tokens: Cow::Borrowed(&self.tokens),
            prompt_end: self.prompt_end,
            turn_start: self.turn_start,
            learnt: Cow::Borrowed(&self.learnt),
            generation: generation.map(Generation::saved).transpose()?,
            evaluated,
            forgotten: if pages { cache.forgotten() } else { 0 },
            page_tokens: cache.layout().page_tokens(),
            states: cache.state().held(evaluated),
            state_kept: cache.state().kept(),
        };
        let failed =
            |error: postcard::Error| Error::new(Code::Internal, "saved session", error.to_string());
        let bytes = postcard::to_stdvec(&head).map_err(failed)?;
        Ok((head, bytes))
    }

    /// The session that was saved to `input`, which ends behind it. It goes on with the same bits: a
    /// turn that had begun goes on, too. With pages from `input` it shares nothing with other sessions.
    ///
    /// # Errors
    /// `FORMAT` if the bytes are damaged or no saved session; `UNSUPPORTED` if they are of another
    /// version, of this format or of the numerics; `INVALID_ARGUMENT` if they were saved with another
    /// model, or do not fit the options; `IO`, `OUT_OF_MEMORY`, `MEMORY_CAP`.
    pub fn restore(
        model: Arc<Model>,
        team: Arc<Team>,
        options: &SessionOptions,
        input: &mut dyn Read,
    ) -> Result<Self> {
        let mut input = Hashed::new(input);
        check_origin(&model, &mut input)?;
        let head_bytes = read_head(&mut input)?;
        let head: Head<'_> =
            postcard::from_bytes(&head_bytes).map_err(|error| damaged(&error.to_string()))?;
        let made = head.options(options, model.network()?)?;
        let mut session = Self::new(model, team, &made)?;
        session.check_head(&head)?;
        let (prefixes, cache) = (session.model.prefixes(), &mut session.caches[0]);
        cache.state_mut().keep(head.state_kept);
        cache.read_from(head.extent(), prefixes, &mut input)?;
        if head.evaluated > 0 {
            // Others need not believe what a file says the model has made of the tokens.
            session.domain = None;
        }
        let checksum = input.checksum();
        if checksum != u128::from_le_bytes(input.array()?) {
            return Err(damaged("its checksum is that of other bytes"));
        }
        match input.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(damaged("more bytes follow")),
            Err(error) => return Err(refused(&error)),
        }
        session.become_saved(head)?;
        Ok(session)
    }

    /// Whether a session of this model can be what the head says.
    fn check_head(&self, head: &Head<'_>) -> Result<()> {
        let (len, vocab) = (head.tokens.len(), self.network()?.spec.vocab);
        let ordered = head.learnt.is_sorted_by_key(|learnt| learnt.tokens);
        let fits = head.tokens.iter().all(|token| (*token as usize) < vocab)
            && head.evaluated <= len
            && head.prompt_end <= len
            && head.turn_start.is_none_or(|start| start <= len)
            && head.states_fit(self.network()?.spec.recurrence.is_some())
            && (head.generation.is_none() || head.turn_start.is_some() && len > 0)
            && ordered
            && head
                .learnt
                .iter()
                .all(|learnt| learnt.tokens <= len && learnt.state.is_sound());
        // What a query to come sees must be there; if all are evaluated, it is the last token's once
        // more.
        let next = head.evaluated.min(len.saturating_sub(1));
        let seen = self.network()?.spec.first_seen(next);
        match fits && head.forgotten <= seen {
            true => Ok(()),
            false => Err(damaged("its counts contradict each other or the model")),
        }
    }

    /// Takes over what the head says; the pages are there.
    fn become_saved(&mut self, head: Head<'_>) -> Result<()> {
        self.tokens = head.tokens.into_owned();
        self.prompt_end = head.prompt_end;
        self.learnt = head.learnt.into_owned();
        (self.evaluated, self.reached) = (head.evaluated, head.evaluated);
        // A generation wants the logits of the last token again; else who wants them asks.
        if head.generation.is_some() && head.evaluated == self.tokens.len() {
            self.go_back(head.evaluated.saturating_sub(1));
        }
        self.turn_start = head.turn_start;
        if self.turn_start.is_some() {
            self.canceller.turn_begins();
        }
        if let Some(saved) = head.generation {
            let mut generation = saved.restore(&self.model, &mut self.said)?;
            let (vocab, history) = (self.network()?.spec.vocab, self.tokens.len());
            generation
                .sampler
                .charge(&self.model.budget().sibling(None));
            generation.sampler.reserve(vocab, history)?;
            self.generation = Some(generation);
        }
        Ok(())
    }
}

impl Head<'_> {
    /// What follows it.
    fn extent(&self) -> Extent<'_> {
        Extent {
            tokens: self.evaluated,
            forgotten: self.forgotten,
            page_tokens: self.page_tokens,
            states: &self.states,
        }
    }

    /// Whether a model, recurrent or not, can have left these states.
    fn states_fit(&self, recurs: bool) -> bool {
        let last = self.states.last().copied().unwrap_or(0);
        let rise = self.states.is_sorted_by(|a, b| a < b) && self.states.first() != Some(&0);
        match recurs {
            true => rise && self.states.len() <= SLOTS && last == self.evaluated,
            false => self.states.is_empty(),
        }
    }

    /// What a session is made with that is to go on from here.
    fn options(&self, given: &SessionOptions, network: &Network) -> Result<SessionOptions> {
        let refuse = |place: &str, message: String| {
            Err(Error::new(Code::InvalidArgument, place.to_owned(), message))
        };
        if let Some(kv) = given.kv.filter(|kv| *kv != self.kv) {
            let message = format!("keys and values were saved as {:?}, not {kv:?}", self.kv);
            return refuse("options.kv", message);
        }
        let context = match given.context {
            0 => self.context,
            context => context,
        };
        if self.tokens.len() > context {
            let needed = self.tokens.len();
            let message = format!("expected room for {needed} tokens, found {context}");
            return refuse("options.context", message);
        }
        if self.evaluated > 0 && network.is_long(context) != network.is_long(self.context) {
            let message = format!(
                "the model turns keys otherwise in a context of {context} tokens than in the {} that \
                 the session had; save it without pages",
                self.context
            );
            return refuse("options.context", message);
        }
        Ok(SessionOptions {
            context,
            kv: Some(self.kv),
            ..given.clone()
        })
    }
}

/// Reads the bytes of the head.
fn read_head(input: &mut Hashed<&mut dyn Read>) -> Result<Vec<u8>> {
    let len = u64::from_le_bytes(input.array()?);
    let mut head = Vec::new();
    let read = input.by_ref().take(len).read_to_end(&mut head);
    match read.map_err(|error| refused(&error))? as u64 == len {
        true => Ok(head),
        false => Err(damaged("it ends within its head")),
    }
}

/// Reads up to the head, and refuses what this build or model cannot go on from.
fn check_origin(model: &Model, input: &mut Hashed<&mut dyn Read>) -> Result<()> {
    if input.array()? != MAGIC {
        return Err(damaged("it does not begin as one"));
    }
    let versions = [("format", VERSION), ("numerics", NUMERICS_VERSION)];
    for (what, known) in versions {
        let found = u32::from_le_bytes(input.array()?);
        if found != known {
            let message = format!("its {what} have version {found}, those of this build {known}");
            return Err(Error::new(Code::Unsupported, "saved session", message));
        }
    }
    let found = u128::from_le_bytes(input.array()?);
    if found != model.identity() {
        let message = "it was saved with another model: metadata or tensors differ";
        return Err(Error::new(Code::InvalidArgument, "saved session", message));
    }
    Ok(())
}

/// Bytes on their way, and the hash of those that have passed.
struct Hashed<T> {
    inner: T,
    hash: SipHasher13,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        let hash = SipHasher13::new();
        Self { inner, hash }
    }

    fn checksum(&self) -> u128 {
        self.hash.finish128().as_u128()
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.write(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hash.write(&bytes[..read]);
        Ok(read)
    }
}

impl<T: Read> Hashed<T> {
    /// The next `N` bytes.
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)
            .map_err(|error| refused(&error))?;
        Ok(bytes)
    }
}

fn damaged(message: &str) -> Error {
    Error::new(Code::Format, "saved session", message)
}
