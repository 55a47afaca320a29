"""One folder an analysis: what it computes, returns, draws, says and costs."""
