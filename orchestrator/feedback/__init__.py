"""Learning from what users say about answers.

A log of events is the one truth (``ports.FeedbackLog``); ``monitor`` folds it into counts, prequential accuracy, drift alarms and the
freeze rule, purely, so that every process comes to the same; ``service`` takes feedback, follows the log, and teaches routers.
"""
