"""What the models' blocks are made of: attention, dropout, and layers of those clips that somebody looks at."""
