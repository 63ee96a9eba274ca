mod calls;
mod greeting;
mod liveness;
mod support;
