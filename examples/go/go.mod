module example.org/caption

go 1.19
