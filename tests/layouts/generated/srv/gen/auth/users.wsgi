def check_password(environ, user, password):
    return password == "secret" if user == "member" else None


def groups_for_user(environ, user):
    return ["wsgi"]
