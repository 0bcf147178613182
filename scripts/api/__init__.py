"""What a notebook calls: one function a task, arrays and tables in and out. `scripts` exports them."""
