//! Stories: the real binary, on small experiments in temporary houses.

mod cases {
    mod cache;
    mod house;
    mod invalid;
    mod keys;
    mod laws;
    mod running;
    mod valid;
}
mod lab;
