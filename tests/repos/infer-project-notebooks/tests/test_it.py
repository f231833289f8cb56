import pytest, torch
