//! Deployment SLIs.
