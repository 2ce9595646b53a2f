//! What tests of the store need: a connection without a server.

pub mod scripted;
