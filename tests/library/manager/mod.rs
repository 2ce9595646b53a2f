//! Whole managers on real threads, over the store in memory.

mod cache;
mod life;
mod losses;
