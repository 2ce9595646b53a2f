//! Whole managers on real threads, over the store in memory.

mod life;
mod losses;
mod support;
