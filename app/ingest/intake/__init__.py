"""From a delivery that was read to a committed transaction: the queue, the batch, the drain of the spool."""
