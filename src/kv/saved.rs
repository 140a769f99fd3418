//! Pages as bytes, little-endian, as they lie in memory: whole pages, also where the last one is
//! not full.

use std::io::{self, Read, Write};

use super::{Cache, Data, Layout, PAGE_TOKENS, Page, SPAN_TOKENS, own};
use crate::budget::Budget;
use crate::error::{Code, Error, Result};

/// Values that are converted at once.
const PIECE: usize = 1024;

impl Cache {
    /// Writes the pages of the first `tokens` tokens, those excepted that are forgotten.
    pub fn write_pages(&self, tokens: usize, out: &mut impl Write) -> io::Result<()> {
        let pages = self.forgotten() / PAGE_TOKENS..tokens.div_ceil(PAGE_TOKENS);
        pages
            .into_iter()
            .try_for_each(|page| self.page(page).write_to(out))
    }

    /// Reads what [`Cache::write_pages`] wrote for `tokens` tokens, of which the first `forgotten`
    /// are. The sequence is empty before.
    ///
    /// # Errors
    /// `FORMAT` if `forgotten` is no number of whole spans before the last token, or the input ends
    /// too early; `IO`, `MEMORY_CAP`, `OUT_OF_MEMORY`.
    pub fn read_pages(
        &mut self,
        tokens: usize,
        forgotten: usize,
        input: &mut impl Read,
    ) -> Result<()> {
        if !forgotten.is_multiple_of(SPAN_TOKENS) || forgotten > tokens.saturating_sub(1) {
            let message = format!("{forgotten} of {tokens} tokens cannot be forgotten");
            return Err(Error::new(Code::Format, "saved pages", message));
        }
        self.reserve_table(tokens)?;
        self.forgotten = forgotten;
        self.pages.resize(forgotten / PAGE_TOKENS, Page::absent());
        while self.pages.len() < tokens.div_ceil(PAGE_TOKENS) {
            let page = Page::read_from(&self.layout, &self.budget, input)?;
            self.pages.push(page);
        }
        Ok(())
    }
}

impl Page {
    fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.0 {
            Data::Absent => Ok(()),
            Data::F16(data) => out.write_all(data.as_flattened()),
            Data::Q8(data) => out.write_all(data),
            Data::F32(data) => data.chunks(PIECE).try_for_each(|values| {
                let mut piece = [[0; 4]; PIECE];
                for (bytes, value) in piece.iter_mut().zip(values) {
                    *bytes = value.to_le_bytes();
                }
                out.write_all(piece[..values.len()].as_flattened())
            }),
        }
    }

    fn read_from(layout: &Layout, budget: &Budget, input: &mut impl Read) -> Result<Self> {
        let mut page = Self::new(layout, budget)?;
        let read = match &mut page.0 {
            Data::Absent => Ok(()),
            Data::F16(data) => input.read_exact(own(data).as_flattened_mut()),
            Data::Q8(data) => input.read_exact(own(data)),
            Data::F32(data) => own(data).chunks_mut(PIECE).try_for_each(|values| {
                let mut piece = [[0; 4]; PIECE];
                input.read_exact(piece[..values.len()].as_flattened_mut())?;
                for (value, bytes) in values.iter_mut().zip(piece) {
                    *value = f32::from_le_bytes(bytes);
                }
                Ok(())
            }),
        };
        read.map_err(|error| refused(&error))?;
        Ok(page)
    }
}

/// What a reader or writer of saved bytes says.
pub fn refused(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::new(Code::Format, "saved session", "it ends too early")
        }
        _ => Error::new(Code::Io, "saved session", error.to_string()),
    }
}
