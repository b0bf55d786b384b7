"""From the records of scenes to the numbers of the protocol, each with its 95% bootstrap interval over scenes."""
