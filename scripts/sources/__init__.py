"""What the user named becomes items: files, folders, patterns, datalists, copick projects, lists."""
