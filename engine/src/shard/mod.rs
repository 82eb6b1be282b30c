//! One thread's partitions, and what drives them.

#[cfg_attr(not(test), expect(dead_code, reason = "the shard that runs it is a change of its own"))]
mod executor;
