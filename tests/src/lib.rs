//! Tests of the whole: real processes, and the rules that the tree keeps
