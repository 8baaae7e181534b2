//! Deployments: event adapters, the state machine, baseline choice.
