"""The theory of section 3 and appendix B, runnable: what is hard to predict from what, and why order matters."""
