//! Nodes as messages: what comes back from a message is what went into it, over random plans.
