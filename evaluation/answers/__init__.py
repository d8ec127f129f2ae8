"""Real answers to labelled questions: asked within bounds, kept so that nothing is asked twice, compared with the baselines."""
