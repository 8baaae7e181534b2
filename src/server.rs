//! Listeners and routes.
//!
//! The only room that knows HTTP and gRPC. Three ports, one kind of [`listener`]: OTLP/gRPC
//! (4317), OTLP/HTTP (4318) and everything else (9560). A request passes three places:
//!
//! 1. [`listener`]: whether the connection may be open at all.
//! 2. [`limits`]: how large, how slow, and how much together a body may be.
//! 3. A handler ([`otlp`], [`api`], [`prometheus`], [`remote_write`]), which parses, asks an
//!    engine room and translates its answer.
//!    Handlers decide nothing: no rule about deployments, verdicts or series lives here.

pub mod api;
pub mod collect;
mod health;
pub mod limits;
pub mod listener;
pub mod otlp;
pub mod prometheus;
pub mod remote_write;
#[cfg(test)]
mod testing;
