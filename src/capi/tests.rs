mod handles;
mod interleavings;
