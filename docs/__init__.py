"""How the README's picture is made."""
