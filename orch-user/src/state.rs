//! Placeholder, replaced by the control core.
