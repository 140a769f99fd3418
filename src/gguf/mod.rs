//! Model files: GGUF bytes become checked metadata and a tensor directory at this border; below it
//! nothing is read again.
