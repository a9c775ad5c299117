"""From the study to the next patient: the model in one file, a patient's page, and one date beside the next."""
