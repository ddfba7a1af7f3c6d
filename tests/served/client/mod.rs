//! The client as a pipeline's step meets it: the built binary in the environment of each CI system, against a broker
//! that serves.

mod denials;
mod detected;
mod network;
mod shown;
