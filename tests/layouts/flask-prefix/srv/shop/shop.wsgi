from catalogue import app

application = None  # the configuration names another
assert True, "stripped by WSGIPythonOptimize"
