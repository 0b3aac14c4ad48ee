"""The paper's section 3 and appendix B as code: distributions, exact predictors, belief propagation and thresholds."""
