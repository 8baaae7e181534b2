//! slogate from outside, as its users meet it: one binary, so that it links once.

mod architecture;
