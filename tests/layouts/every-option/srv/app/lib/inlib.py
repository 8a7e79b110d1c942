# only to be imported
