sitename = "The wiki"
