import hashlib

PASSWORDS = {"dora": "red", "erin": "green", "frank": "blue"}
GROUPS = {"dora": ["staff"], "erin": ["guests"], "frank": ["guests", "site admins"]}


def check_password(environ, user, password):
    if user not in PASSWORDS:
        return None
    return PASSWORDS[user] == password


def get_realm_hash(environ, user, realm):
    if user not in PASSWORDS:
        return None
    text = f"{user}:{realm}:{PASSWORDS[user]}"
    return hashlib.md5(text.encode()).hexdigest()


def groups_for_user(environ, user):
    return GROUPS.get(user, [])
