//! The HTTP face and the program around the engine.
