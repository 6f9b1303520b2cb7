"""What holds for the project as a whole: its documents, its rooms, its words."""
