//! Listeners and routes.
