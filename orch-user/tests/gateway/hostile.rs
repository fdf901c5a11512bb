//! Clients that mean harm, or are broken.
